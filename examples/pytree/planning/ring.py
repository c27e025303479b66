# A queue of fixed size in a ring, dropping or refusing when full.


class RingBuffer:
    def __init__(self, size, overwrite=False):
        if size < 1:
            raise ValueError("size must be at least 1")
        self.slots = [None] * size
        self.head = 0
        self.count = 0
        self.overwrite = overwrite

    def is_full(self):
        used = self.count
        room = len(self.slots)
        return used == room

    def push(self, value):
        if self.is_full():
            if not self.overwrite:
                return False
            self.shift()
        tail = (self.head + self.count) % len(self.slots)
        self.slots[tail] = value
        self.count += 1
        return True

    def shift(self):
        if self.count == 0:
            return None
        value = self.slots[self.head]
        self.slots[self.head] = None
        self.head = (self.head + 1) % len(self.slots)
        self.count -= 1
        return value

    def at(self, index):
        if index < 0:
            index += self.count
        if not 0 <= index < self.count:
            raise IndexError("no such element")
        return self.slots[(self.head + index) % len(self.slots)]

    def to_list(self, newest_first=False):
        values = []
        for index in range(self.count):
            values.append(self.at(index))
        if newest_first:
            values.reverse()
        return values

    def drain(self, limit=None):
        taken = []
        while self.count > 0:
            if limit is not None and len(taken) >= limit:
                break
            taken.append(self.shift())
        return taken

    def clear(self):
        dropped = self.count
        self.slots = [None] * len(self.slots)
        self.head = 0
        self.count = 0
        return dropped


def moving_average(values, size):
    ring = RingBuffer(size, True)
    averages = []
    for value in values:
        ring.push(value)
        if ring.is_full():
            averages.append(sum(ring.to_list()) / size)
    return averages
