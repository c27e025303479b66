# A cache whose entries grow old; the caller passes in the time.


class ExpiringCache:
    def __init__(self, lifetime, capacity=None):
        self.lifetime = lifetime
        self.capacity = capacity
        self.entries = {}

    def put(self, key, value, now, lifetime=None):
        if lifetime is None:
            lifetime = self.lifetime
        if self.is_full() and key not in self.entries:
            self.make_room(now)
        self.entries[key] = (value, now + lifetime)

    def is_full(self):
        if self.capacity is None:
            return False
        return len(self.entries) >= self.capacity

    def make_room(self, now):
        if self.purge(now) > 0:
            return
        soonest = min(self.entries, key=lambda key: self.entries[key][1])
        del self.entries[soonest]

    def is_fresh(self, key, now):
        entry = self.entries.get(key)
        if entry is None:
            return False
        return now < entry[1]

    def get(self, key, now, stale=False):
        if key not in self.entries:
            return None
        if stale or self.is_fresh(key, now):
            return self.entries[key][0]
        return None

    def purge(self, now):
        old = [key for key in self.entries if not self.is_fresh(key, now)]
        for key in old:
            del self.entries[key]
        return len(old)

    def extend(self, key, now, seconds):
        if not self.is_fresh(key, now):
            return False
        value, expires = self.entries[key]
        self.entries[key] = (value, expires + seconds)
        return True

    def remaining(self, key, now):
        if not self.is_fresh(key, now):
            return 0
        return self.entries[key][1] - now

    def next_expiry(self):
        soonest = None
        for _, expires in self.entries.values():
            if soonest is None or expires < soonest:
                soonest = expires
        return soonest
