"""A synthetic city: streets and what stands on them (`world`), and pictures of it (`render`).

Imports run one way: styles <- scene <- streets <- buildings <- world <- places <- drives <-
settings; scene <- trace, shade <- render; settings, render <- dataset.
"""
