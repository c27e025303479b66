# A priority queue on a binary heap; the smallest priority comes first.


class PriorityQueue:
    def __init__(self):
        self.items = []
        self.counter = 0

    def push(self, value, priority):
        self.items.append((priority, self.counter, value))
        self.counter += 1
        self.sift_up(len(self.items) - 1)

    def sift_up(self, index):
        while index > 0:
            parent = (index - 1) // 2
            if self.items[parent] <= self.items[index]:
                break
            self.swap(parent, index)
            index = parent

    def swap(self, left, right):
        kept = self.items[left]
        self.items[left] = self.items[right]
        self.items[right] = kept

    def smaller_child(self, index):
        left = index * 2 + 1
        right = left + 1
        if left >= len(self.items):
            return None
        if right < len(self.items) and self.items[right] < self.items[left]:
            return right
        return left

    def sift_down(self, index):
        child = self.smaller_child(index)
        while child is not None and self.items[child] < self.items[index]:
            self.swap(child, index)
            index = child
            child = self.smaller_child(index)

    def pop(self):
        if not self.items:
            raise IndexError("queue is empty")
        self.swap(0, len(self.items) - 1)
        _, _, value = self.items.pop()
        self.sift_down(0)
        return value

    def peek(self, default=None):
        if not self.items:
            return default
        return self.items[0][2]


def heap_sort(values, limit=None):
    queue = PriorityQueue()
    for value in values:
        queue.push(value, value)
    if limit is None or limit > len(values):
        limit = len(values)
    return [queue.pop() for _ in range(limit)]


def merge_sorted(lists):
    queue = PriorityQueue()
    merged = []
    for values in lists:
        for value in values:
            queue.push(value, value)
    while queue.items:
        merged.append(queue.pop())
    return merged
