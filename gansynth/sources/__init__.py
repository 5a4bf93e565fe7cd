"""Reading labelled cases: the CaseSource contract and what every source shares.

Sources are named ``kind:where`` (``nnunet:004``). A kind is registered by a plugin's
``register_sources`` hook; ``gansynth.registry`` opens it from a ``SourceRequest``.
"""

from gansynth.sources.base import CaseSource, SourceRequest

__all__ = ["CaseSource", "SourceRequest"]
