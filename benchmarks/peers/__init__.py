"""Who else imports a month: each module returns the work of one contender, as its users would write it."""
