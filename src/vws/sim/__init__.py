"""The whole site in one process on a virtual clock: workloads in, schedules and numbers out."""
