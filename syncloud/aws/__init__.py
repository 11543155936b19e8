"""The AWS side: sessions, credentials, endpoints, TLS, and the mapping of foreign errors."""
