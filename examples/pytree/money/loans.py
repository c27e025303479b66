# Loans repaid in monthly instalments; rates are yearly, amounts in cents.


def monthly_interest(balance, yearly_rate):
    if balance <= 0:
        return 0
    return int(balance * yearly_rate / 12 + 0.5)


def instalment(principal, yearly_rate, months):
    if months < 1:
        raise ValueError("a loan runs for at least one month")
    if yearly_rate == 0:
        return -(-principal // months)
    rate = yearly_rate / 12
    growth = (1 + rate) ** months
    return int(principal * rate * growth / (growth - 1) + 0.5)


def pay_month(balance, payment, yearly_rate):
    interest = monthly_interest(balance, yearly_rate)
    due = balance + interest
    if payment >= due:
        return 0, interest
    return due - payment, interest


def schedule(principal, yearly_rate, months):
    payment = instalment(principal, yearly_rate, months)
    rows = []
    balance = principal
    for month in range(1, months + 1):
        balance, interest = pay_month(balance, payment, yearly_rate)
        rows.append((month, interest, balance))
        if balance == 0:
            break
    return rows


def months_to_repay(balance, payment, yearly_rate, limit=600):
    if payment <= monthly_interest(balance, yearly_rate):
        return None
    months = 0
    while balance > 0 and months < limit:
        balance, _ = pay_month(balance, payment, yearly_rate)
        months += 1
    return months


def total_interest(rows):
    total = 0
    for _, interest, _ in rows:
        total += interest
    return total


def late_fee(days_late, amount, grace=5, daily=25):
    if days_late <= grace:
        return 0
    fee = (days_late - grace) * daily
    return min(fee, amount // 10)


def is_affordable(income, payment, debts=(), share=0.35):
    committed = payment + sum(debts)
    if income <= 0:
        return False
    return committed / income <= share


def cheaper(left, right):
    left_cost = total_interest(left)
    right_cost = total_interest(right)
    if left_cost == right_cost:
        return left if len(left) <= len(right) else right
    return left if left_cost < right_cost else right
