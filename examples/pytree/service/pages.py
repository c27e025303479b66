# Showing long lists a page at a time.


def page_count(total, size):
    if size < 1:
        raise ValueError("a page holds at least one item")
    pages = total // size
    if total % size != 0:
        pages += 1
    return max(pages, 1)


def page_bounds(page, size, total):
    last = page_count(total, size)
    page = max(1, min(page, last))
    start = (page - 1) * size
    end = min(start + size, total)
    return start, end


def page_of(items, page, size=20):
    start, end = page_bounds(page, size, len(items))
    if start >= end:
        return []
    return items[start:end]


def page_links(current, last, reach=2):
    links = []
    for page in range(1, last + 1):
        near = abs(page - current) <= reach
        if near or page == 1 or page == last:
            links.append(page)
        elif links[-1] is not None:
            links.append(None)
    return links


def after_cursor(items, cursor, limit):
    found = []
    for item in items:
        if cursor is not None and item["id"] <= cursor:
            continue
        found.append(item)
        if len(found) == limit:
            break
    return found


def next_cursor(found, limit):
    if len(found) < limit or not found:
        return None
    last = found[-1]
    return last["id"]


def all_pages(fetch, limit, most=100):
    items = []
    cursor = None
    for _ in range(most):
        found = fetch(cursor, limit)
        items.extend(found)
        cursor = next_cursor(found, limit)
        if cursor is None:
            break
    return items


def sort_items(items, order):
    result = list(items)
    for key in reversed(order):
        descending = key.startswith("-")
        name = key[1:] if descending else key
        result.sort(key=lambda item: item[name], reverse=descending)
    return result


def summary(page, size, total):
    if total == 0:
        return "nothing found"
    start, end = page_bounds(page, size, total)
    return "%d-%d of %d" % (start + 1, end, total)
