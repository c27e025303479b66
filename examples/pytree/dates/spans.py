# Half-open spans (start, end) on a line of whole minutes.


def is_empty(span):
    if span is None:
        return True
    start, end = span
    return start >= end


def span_length(span):
    if is_empty(span):
        return 0
    return span[1] - span[0]


def intersects(left, right):
    if is_empty(left) or is_empty(right):
        return False
    return left[0] < right[1] and right[0] < left[1]


def intersection(left, right):
    if not intersects(left, right):
        return None
    start = max(left[0], right[0])
    end = min(left[1], right[1])
    return (start, end)


def merge_spans(spans, gap=0):
    merged = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1] + gap:
            last_start, last_end = merged[-1]
            merged[-1] = (last_start, max(last_end, end))
        else:
            merged.append((start, end))
    return merged


def free_spans(day, busy):
    free = []
    cursor = day[0]
    for start, end in merge_spans(busy):
        if start > cursor:
            free.append((cursor, min(start, day[1])))
        cursor = max(cursor, end)
    if cursor < day[1]:
        free.append((cursor, day[1]))
    return free


def first_fit(day, busy, minutes):
    for span in free_spans(day, busy):
        if span_length(span) >= minutes:
            return (span[0], span[0] + minutes)
    return None


def total_length(spans):
    total = 0
    for span in merge_spans(spans):
        total += span_length(span)
    return total
