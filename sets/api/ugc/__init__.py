"""The dialect of UCloud's General Compute (UGC), beside the native API: all calls on `/`, named by `Action`."""
