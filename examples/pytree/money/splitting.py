# Sharing bills so that no cent is lost, and settling who owes whom.


def split_evenly(cents, people):
    if people < 1:
        raise ValueError("nobody to share with")
    share, rest = divmod(cents, people)
    shares = []
    for index in range(people):
        extra = 1 if index < rest else 0
        shares.append(share + extra)
    return shares


def split_by_weight(cents, weights):
    total = sum(weights)
    if total <= 0:
        raise ValueError("weights must add up to more than zero")
    shares = [cents * weight // total for weight in weights]
    rest = cents - sum(shares)
    for index in range(rest):
        shares[index % len(shares)] += 1
    return shares


def add_tip(cents, percent, round_up=False):
    total = cents + cents * percent // 100
    if round_up and total % 100 != 0:
        total += 100 - total % 100
    return total


def balances_of(payments):
    balances = {}
    for payer, cents, sharers in payments:
        balances[payer] = balances.get(payer, 0) + cents
        shares = split_evenly(cents, len(sharers))
        for person, share in zip(sharers, shares):
            balances[person] = balances.get(person, 0) - share
    return balances


def extreme(balances, largest=True):
    chosen = None
    for person in sorted(balances):
        if chosen is None:
            chosen = person
        elif largest and balances[person] > balances[chosen]:
            chosen = person
        elif not largest and balances[person] < balances[chosen]:
            chosen = person
    return chosen


def settle(balances):
    open_balances = dict(balances)
    moves = []
    while any(cents != 0 for cents in open_balances.values()):
        creditor = extreme(open_balances)
        debtor = extreme(open_balances, False)
        cents = min(open_balances[creditor], -open_balances[debtor])
        open_balances[creditor] -= cents
        open_balances[debtor] += cents
        moves.append((debtor, creditor, cents))
    return moves


def total_owed(moves, person):
    owed = 0
    for debtor, _, cents in moves:
        if debtor == person:
            owed += cents
    return owed
