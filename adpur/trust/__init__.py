"""The trust report: what a hostile reviewer would check, checked in the run itself."""
