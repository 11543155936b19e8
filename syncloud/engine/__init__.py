"""The engine: hints in, paths reconciled, results recorded, receipts acknowledged. It knows trees by their contract alone."""
