# Calendar arithmetic without a clock.
