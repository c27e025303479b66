# Counting values in bins of equal width.


class Histogram:
    def __init__(self, low, high, bins):
        if high <= low or bins < 1:
            raise ValueError("a histogram needs a range and a bin")
        self.low = low
        self.high = high
        self.counts = [0] * bins
        self.below = 0
        self.above = 0

    def width(self):
        span = self.high - self.low
        bins = len(self.counts)
        return span / bins

    def bin_of(self, value):
        if value < self.low or value > self.high:
            return None
        index = int((value - self.low) / self.width())
        return min(index, len(self.counts) - 1)

    def record(self, value, weight=1):
        index = self.bin_of(value)
        if index is not None:
            self.counts[index] += weight
        elif value < self.low:
            self.below += weight
        else:
            self.above += weight

    def total(self, with_outside=False):
        inside = sum(self.counts)
        if with_outside:
            return inside + self.below + self.above
        return inside

    def edges(self, index):
        if not 0 <= index < len(self.counts):
            raise IndexError("no such bin")
        start = self.low + index * self.width()
        return start, start + self.width()

    def percentile(self, percent):
        target = self.total() * percent / 100
        running = 0
        for index, count in enumerate(self.counts):
            running += count
            if running >= target and count > 0:
                return self.edges(index)[1]
        return None

    def merge(self, other):
        if len(self.counts) != len(other.counts) or self.low != other.low:
            raise ValueError("histograms do not match")
        for index, count in enumerate(other.counts):
            self.counts[index] += count
        self.below += other.below
        self.above += other.above


def draw(histogram, width=40):
    lines = []
    largest = max(histogram.counts)
    for index, count in enumerate(histogram.counts):
        size = count * width // largest if largest else 0
        start, _ = histogram.edges(index)
        lines.append("%8.2f %s" % (start, "#" * size))
    return lines
