"""A synthetic city: streets and what stands on them (`world`), and pictures of it (`render`).

Imports run one way: styles <- scene <- streets <- buildings <- world <- places;
scene <- trace, shade <- render <- dataset.
"""
