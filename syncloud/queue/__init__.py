"""Hints from S3's event notifications in an SQS queue."""
