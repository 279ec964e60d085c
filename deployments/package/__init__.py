"""esci_tournament."""
