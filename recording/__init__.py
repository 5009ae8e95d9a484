"""What a recording is: states, names and keys, the manifest, and what the boxes of an MP4 tell.

Pure: no I/O, no clock, no thread. It imports `errors` alone.
"""
