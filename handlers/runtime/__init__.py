"""What handlers stand on: app, binding, access, validation, upstream client, errors, settings."""
