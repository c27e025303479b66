# Queues, timers and limits: deciding what runs next.
