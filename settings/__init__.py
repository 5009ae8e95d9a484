"""What each setting may be and where it comes from; `config.py` at the top puts them together."""
