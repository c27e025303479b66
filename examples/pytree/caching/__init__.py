# Keeping results for later, within limits.
