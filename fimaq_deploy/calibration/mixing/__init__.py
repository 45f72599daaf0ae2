"""Which format each layer gets when there is a budget: what each would lose and take, and the best of all mixes."""
