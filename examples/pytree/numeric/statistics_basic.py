# Summaries of a sample of numbers.


def mean(values):
    if not values:
        raise ValueError("mean of nothing")
    total = sum(values)
    return total / len(values)


def variance(values, sample=True):
    center = mean(values)
    count = len(values) - 1 if sample else len(values)
    if count < 1:
        return 0.0
    total = 0
    for value in values:
        total += (value - center) ** 2
    return total / count


def deviation(values, sample=True):
    spread = variance(values, sample)
    if spread == 0:
        return 0.0
    return spread ** 0.5


def quantile(values, fraction):
    if not 0 <= fraction <= 1:
        raise ValueError("fraction must be between 0 and 1")
    ordered = sorted(values)
    position = fraction * (len(ordered) - 1)
    below = int(position)
    rest = position - below
    if rest == 0:
        return ordered[below]
    return ordered[below] * (1 - rest) + ordered[below + 1] * rest


def mode(values):
    counts = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    best = None
    for value in sorted(counts):
        if best is None or counts[value] > counts[best]:
            best = value
    return best


def outliers(values, reach=1.5):
    low, high = quantile(values, 0.25), quantile(values, 0.75)
    margin = reach * (high - low)
    found = []
    for value in values:
        if value < low - margin or value > high + margin:
            found.append(value)
    return found


def trimmed_mean(values, cut):
    ordered = sorted(values)
    if cut * 2 >= len(ordered):
        raise ValueError("nothing would be left")
    if cut > 0:
        ordered = ordered[cut:-cut]
    return mean(ordered)


def correlation(left, right):
    spread = deviation(left, False) * deviation(right, False)
    if spread == 0 or len(left) != len(right):
        return None
    left_mean, right_mean = mean(left), mean(right)
    total = 0
    for a, b in zip(left, right):
        total += (a - left_mean) * (b - right_mean)
    return total / len(left) / spread
