# Approximate counting and membership in little memory.


def hash_text(text, seed=0):
    value = 2166136261 ^ seed
    for byte in text.encode("utf-8"):
        value ^= byte
        value = value * 16777619 % 4294967296
    return value


def slots(text, rounds, size):
    positions = []
    for seed in range(rounds):
        positions.append(hash_text(text, seed * 7919) % size)
    return positions


class BloomFilter:
    def __init__(self, size, rounds=3):
        self.bits = [False] * size
        self.rounds = rounds

    def insert(self, text):
        fresh = False
        for position in slots(text, self.rounds, len(self.bits)):
            if not self.bits[position]:
                fresh = True
                self.bits[position] = True
        return fresh

    def may_contain(self, text):
        for position in slots(text, self.rounds, len(self.bits)):
            if not self.bits[position]:
                return False
        return True

    def fill_ratio(self):
        used = 0
        for bit in self.bits:
            if bit:
                used += 1
        return used / len(self.bits)


class CountSketch:
    def __init__(self, width, rounds=3):
        self.rows = [[0] * width for _ in range(rounds)]

    def count(self, text, amount=1):
        width = len(self.rows[0])
        for row, position in zip(self.rows, slots(text, len(self.rows), width)):
            row[position] += amount

    def estimate(self, text):
        smallest = None
        width = len(self.rows[0])
        for row, position in zip(self.rows, slots(text, len(self.rows), width)):
            if smallest is None or row[position] < smallest:
                smallest = row[position]
        return smallest

    def heavier(self, words, threshold):
        found = []
        for word in words:
            if word not in found and self.estimate(word) >= threshold:
                found.append(word)
        return found
