"""REST APIs: endpoints of JSON, NDJSON or CSV over HTTP."""
