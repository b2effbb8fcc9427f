"""From fields to laws: how composition strains a crystal, and how sure the images make us of it."""
