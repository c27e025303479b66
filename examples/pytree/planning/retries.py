# Trying again after failures, and giving up in time.


def backoff(attempt, base=1, highest=60):
    if attempt < 1:
        return 0
    delay = base * 2 ** (attempt - 1)
    return min(delay, highest)


def delays(attempts, base=1, highest=60):
    waits = []
    for attempt in range(1, attempts):
        waits.append(backoff(attempt, base, highest))
    return waits


def attempts_before(deadline, base=1, highest=60):
    elapsed = 0
    attempts = 1
    while elapsed + backoff(attempts, base, highest) <= deadline:
        elapsed += backoff(attempts, base, highest)
        attempts += 1
    return attempts


def call_with_retries(action, attempts, is_final=None):
    last = None
    for number in range(1, attempts + 1):
        try:
            return action(number)
        except ValueError as error:
            last = error
            if is_final is not None and is_final(error):
                break
    raise last


class Breaker:
    def __init__(self, failures, pause):
        self.limit = failures
        self.pause = pause
        self.failures = 0
        self.opened = None

    def allows(self, now):
        if self.opened is None:
            return True
        return now - self.opened >= self.pause

    def record(self, succeeded, now):
        if succeeded:
            self.failures = 0
            self.opened = None
            return
        self.failures += 1
        if self.failures >= self.limit:
            self.opened = now

    def state(self, now):
        if self.opened is None:
            return "closed"
        if self.allows(now):
            return "trial"
        return "open"

    def guard(self, action, now, fallback=None):
        if not self.allows(now):
            return fallback
        result = action()
        self.record(result is not None, now)
        if result is None:
            return fallback
        return result
