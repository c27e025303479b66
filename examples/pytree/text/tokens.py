# Cutting text into words, sentences and n-grams, and counting them.

STOP_WORDS = ("a", "an", "and", "in", "is", "of", "the", "to")


def words_of(text):
    words = []
    current = ""
    for char in text.lower() + " ":
        if char.isalnum() or char == "'":
            current += char
        elif current:
            words.append(current)
            current = ""
    return words


def sentences_of(text):
    sentences = []
    current = ""
    for char in text:
        current += char
        if char in ".!?":
            sentences.append(current.strip())
            current = ""
    if current.strip():
        sentences.append(current.strip())
    return sentences


def count_words(words, skip_common=True):
    counts = {}
    for word in words:
        if skip_common and word in STOP_WORDS:
            continue
        counts[word] = counts.get(word, 0) + 1
    return counts


def most_common(counts, limit):
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    if limit < len(ordered):
        ordered = ordered[:limit]
    return [(word, counts[word]) for word in ordered]


def ngrams(words, size):
    if size < 1:
        raise ValueError("size must be at least 1")
    grams = []
    for start in range(len(words) - size + 1):
        grams.append(tuple(words[start:start + size]))
    return grams


def overlap(left, right):
    first = set(left)
    second = set(right)
    union = len(first | second)
    if union == 0:
        return 0.0
    return len(first & second) / union


def reading_minutes(text, words_per_minute=200):
    total = len(words_of(text))
    if total == 0:
        return 0
    minutes = total // words_per_minute
    return max(minutes, 1)
