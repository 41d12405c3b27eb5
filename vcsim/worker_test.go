package main

import (
	"slices"
	"testing"

	"github.com/vmware/govmomi/simulator"
)

func TestWorkerRunsInOrderAndSyncWaitsForWhatItQueues(t *testing.T) {
	w := newWorker(func() *simulator.Context { return nil })
	var order []int
	for i := range 3 {
		w.later(func(*simulator.Context) {
			order = append(order, i)
			w.later(func(*simulator.Context) { order = append(order, 10+i) })
		})
	}
	w.sync()
	if !slices.Equal(order, []int{0, 1, 2, 10, 11, 12}) {
		t.Errorf("order %v", order)
	}
}

func TestTaskNamesAreThoseOfTheMethods(t *testing.T) {
	for stock, want := range map[string]string{
		"Rename": "Rename_Task", "ReconfigVm": "ReconfigVM_Task", "PowerOn": "PowerOnVM_Task", "CreateVm": "CreateVM_Task",
		"ReconfigureDvPort": "ReconfigureDVPort_Task", "AddDVPortgroup": "AddDVPortgroup_Task", "Destroy": "Destroy_Task",
		"MigrateVM_Task": "MigrateVM_Task", "nothing": "",
	} {
		if got := taskMethodName(stock); got != want {
			t.Errorf("%s: %q, want %q", stock, got, want)
		}
	}
}
