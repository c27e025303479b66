# Packing items of different sizes into bins of one capacity.


def check_sizes(sizes, capacity):
    for size in sizes:
        if size <= 0:
            raise ValueError("sizes must be positive")
        if size > capacity:
            raise ValueError("an item is larger than a bin")


def bin_load(items):
    load = 0
    for size in items:
        load += size
    return load


def first_fit(sizes, capacity, largest_first=False):
    check_sizes(sizes, capacity)
    bins = []
    for size in sorted(sizes, reverse=True) if largest_first else sizes:
        for items in bins:
            if bin_load(items) + size <= capacity:
                items.append(size)
                break
        else:
            bins.append([size])
    return bins


def tightest(bins, size, capacity):
    best = None
    best_left = capacity
    for index, items in enumerate(bins):
        left = capacity - bin_load(items) - size
        if 0 <= left < best_left:
            best = index
            best_left = left
    return best


def best_fit(sizes, capacity):
    check_sizes(sizes, capacity)
    bins = []
    for size in sizes:
        index = tightest(bins, size, capacity)
        if index is None:
            bins.append([size])
        else:
            bins[index].append(size)
    return bins


def lower_bound(sizes, capacity):
    total = sum(sizes)
    bound = total // capacity
    if total % capacity != 0:
        bound += 1
    return bound


def waste(bins, capacity):
    unused = 0
    for items in bins:
        unused += capacity - bin_load(items)
    return unused


def fill_ratio(bins, capacity):
    if not bins:
        return 0.0
    room = len(bins) * capacity
    return 1 - waste(bins, capacity) / room


def emptiest(bins):
    chosen = None
    for index, items in enumerate(bins):
        if chosen is None or bin_load(items) < bin_load(bins[chosen]):
            chosen = index
    return chosen
