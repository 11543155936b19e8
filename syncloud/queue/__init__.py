"""Consumer of S3 event notifications in an SQS queue: each event becomes a hint."""
