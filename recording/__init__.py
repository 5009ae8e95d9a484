"""What a recording is: states, names and keys, the manifest, and what the boxes of an MP4 tell.

No I/O, no thread. It imports `errors` alone.
"""
