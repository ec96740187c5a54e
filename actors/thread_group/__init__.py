"""ThreadGroup: one guest process, its threads and all state that its system calls find here."""
