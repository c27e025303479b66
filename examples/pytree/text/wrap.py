# Breaking paragraphs into lines of a given width.


def split_words(paragraph):
    words = []
    for word in paragraph.split(" "):
        if word:
            words.append(word)
    return words


def fits(line, word, width):
    if not line:
        return True
    needed = len(line) + 1 + len(word)
    return needed <= width


def wrap_greedy(paragraph, width):
    lines = []
    line = ""
    for word in split_words(paragraph):
        if fits(line, word, width):
            line = word if not line else line + " " + word
        else:
            lines.append(line)
            line = word
    if line:
        lines.append(line)
    return lines


def indent_lines(lines, prefix, skip_first=False):
    result = []
    for index, line in enumerate(lines):
        if skip_first and index == 0:
            result.append(line)
        else:
            result.append(prefix + line)
    return result


def justify(line, width):
    words = split_words(line)
    gaps = len(words) - 1
    if gaps < 1 or len(line) >= width:
        return line
    spare = width - sum(len(word) for word in words)
    base, extra = divmod(spare, gaps)
    result = words[0]
    for index in range(1, len(words)):
        pad = base + 1 if index <= extra else base
        result += " " * pad + words[index]
    return result


def longest_line(lines):
    longest = 0
    for line in lines:
        if len(line) > longest:
            longest = len(line)
    return longest


def center_block(lines, width):
    block = longest_line(lines)
    if block >= width:
        return list(lines)
    margin = (width - block) // 2
    return indent_lines(lines, " " * margin)


def shorten(line, width, mark="..."):
    if len(line) <= width:
        return line
    keep = width - len(mark)
    if keep <= 0:
        return mark[:width]
    return line[:keep].rstrip() + mark
