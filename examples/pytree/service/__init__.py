# Parts of a small server: routes, settings, checks, logs, permissions.
