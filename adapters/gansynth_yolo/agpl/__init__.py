"""ultralytics: nothing outside this package imports it, and importing this package does not either.

ultralytics is licensed under AGPL-3.0; gansynth is not part of it and carries none of its code. A
training of it that is run from here is a work that combines both, to which the terms of AGPL-3.0
apply: whoever passes it on, or lets others use it over a network, owes them its complete source,
unless they hold another licence from Ultralytics. Its weights, and what is trained from them, come
under the same terms. Who cannot accept that takes ``libreyolo`` (MIT), which needs none of this.
"""
