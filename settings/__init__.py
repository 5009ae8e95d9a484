"""What can be set: a module for each group, with its fields, defaults and rules.

`config.py` at the top puts the groups together, reads what is set (`sources`), and reports every problem.
`rules` has what several groups check, `risks` warns of what works and should not stay so.
"""
