"""The page of `georetrieval serve`: drop a panorama, see where it was taken. Needs ``serve``.

``pictures, upload <- app``, and ``listening``. What is in ``static/leaflet`` is Leaflet 1.9.4, with
its licence.
"""

from georetrieval.serve.app import create_app
from georetrieval.serve.listening import listen

__all__ = ["create_app", "listen"]
