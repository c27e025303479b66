# Reading small text formats by hand.
