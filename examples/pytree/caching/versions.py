# Values that remember their earlier versions.


class VersionedStore:
    def __init__(self, keep=10):
        self.keep = keep
        self.history = {}
        self.locked = set()

    def write(self, key, value, expected=None):
        if key in self.locked:
            raise ValueError("key is locked: " + key)
        if expected is not None and self.version(key) != expected:
            return None
        versions = self.history.setdefault(key, [])
        number = self.version(key) + 1
        versions.append((number, value))
        if len(versions) > self.keep:
            versions.pop(0)
        return number

    def version(self, key):
        versions = self.history.get(key)
        if not versions:
            return 0
        return versions[-1][0]

    def read(self, key, number=None):
        if number is None:
            number = self.version(key)
        for candidate, value in self.history.get(key, []):
            if candidate == number:
                return value
        return None

    def roll_back(self, key, steps=1):
        target = self.version(key) - steps
        if target < 1:
            return False
        value = self.read(key, target)
        if value is None:
            return False
        return self.write(key, value) is not None

    def lock(self, key, locked=True):
        if locked:
            self.locked.add(key)
        else:
            self.locked.discard(key)

    def changed_since(self, marks):
        changed = []
        for key in sorted(self.history):
            if self.version(key) > marks.get(key, 0):
                changed.append(key)
        return changed


def sync(source, target):
    copied = 0
    for key in source.history:
        value = source.read(key)
        if target.read(key) != value:
            target.write(key, value)
            copied += 1
    return copied
