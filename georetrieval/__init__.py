"""Cross-view geo-localization: train, evaluate and co-retrieve from bevgen's shards.

Imports run one way: errors <- config <- data, augment, model <- embedding, sampling, loss, optim,
metrics, checkpoints, tracking, processes <- training <- evaluation <- report <- cli. Of bevgen
only its public names are used.
"""

from bevgen import __version__ as __version__
