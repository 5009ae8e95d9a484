"""The S3 store: confirmed puts, reads, lists.

Nobody outside imports boto3 or botocore; their exceptions become ours in `errors`, which decides what is
worth a retry. Face: `bucket.ObjectStore`.
"""
