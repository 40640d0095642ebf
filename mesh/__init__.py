"""The nouns that every room shares: names, identities, reviews, settings. Pure; imports nothing of ours."""
