"""AWS itself: sessions, credentials, endpoints, TLS, and what boto3, awscrt and stores answer, as errors of ours."""
