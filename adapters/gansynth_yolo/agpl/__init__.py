"""ultralytics adapter: only modules of this package import it, and only on use.

ultralytics is licensed under AGPL-3.0. gansynth is not part of it and contains none of its code. A
training that is run from here combines both, so the terms of AGPL-3.0 apply to it. Whoever passes
it on, or offers it over a network, must provide its complete source. Another licence from
Ultralytics lifts that duty. Its weights, and weights trained from them, come under the same terms.
The alternative ``libreyolo`` (MIT) has no such terms.
"""
