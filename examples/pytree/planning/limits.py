# Limits on how often something may happen; the caller passes in the time.


class TokenBucket:
    def __init__(self, rate, burst, now=0):
        self.rate = rate
        self.burst = burst
        self.tokens = burst
        self.updated = now

    def refill(self, now):
        if now <= self.updated:
            return
        gained = (now - self.updated) * self.rate
        self.tokens = min(self.burst, self.tokens + gained)
        self.updated = now

    def take(self, now, amount=1):
        self.refill(now)
        if self.tokens < amount:
            return False
        self.tokens -= amount
        return True

    def wait_for(self, now, amount=1):
        self.refill(now)
        if amount > self.burst:
            return None
        missing = amount - self.tokens
        if missing <= 0:
            return 0
        return missing / self.rate


class SlidingWindow:
    def __init__(self, limit, seconds):
        self.limit = limit
        self.seconds = seconds
        self.times = {}

    def forget(self, key, now):
        recent = self.times.get(key, [])
        while recent and recent[0] <= now - self.seconds:
            recent.pop(0)
        if not recent:
            self.times.pop(key, None)

    def allow(self, key, now):
        self.forget(key, now)
        recent = self.times.setdefault(key, [])
        if len(recent) >= self.limit:
            return False
        recent.append(now)
        return True

    def left(self, key, now):
        self.forget(key, now)
        used = len(self.times.get(key, ()))
        return self.limit - used

    def retry_at(self, key, now):
        if self.left(key, now) > 0:
            return now
        oldest = self.times[key][0]
        return oldest + self.seconds


def admitted(window, events):
    passed = []
    for key, now in events:
        if window.allow(key, now):
            passed.append((key, now))
    return passed
