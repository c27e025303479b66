# A cache that forgets whatever was used longest ago.


class LruCache:
    def __init__(self, capacity):
        if capacity < 1:
            raise ValueError("capacity must be at least 1")
        self.capacity = capacity
        self.values = {}
        self.hits = 0
        self.misses = 0

    def touch(self, key):
        value = self.values.pop(key)
        self.values[key] = value
        return value

    def get(self, key, default=None):
        if key not in self.values:
            self.misses += 1
            return default
        self.hits += 1
        return self.touch(key)

    def put(self, key, value):
        evicted = None
        if key in self.values:
            del self.values[key]
        elif len(self.values) >= self.capacity:
            evicted = self.oldest()
            del self.values[evicted]
        self.values[key] = value
        return evicted

    def oldest(self):
        for key in self.values:
            return key
        return None

    def resize(self, capacity):
        dropped = []
        while len(self.values) > capacity:
            key = self.oldest()
            dropped.append(key)
            del self.values[key]
        self.capacity = capacity
        return dropped

    def hit_rate(self):
        asked = self.hits + self.misses
        if asked == 0:
            return 0.0
        return self.hits / asked

    def get_or_make(self, key, make):
        value = self.get(key)
        if value is None:
            value = make(key)
            self.put(key, value)
        return value


def replay_keys(cache, keys):
    missed = []
    for key in keys:
        if cache.get(key) is None:
            cache.put(key, True)
            missed.append(key)
    return missed
