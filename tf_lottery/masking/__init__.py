"""A Keras model under masks: which of its weights can be pruned, the layers that mask them, and what can be read off it.

What stands here, and after a colon the names that other rooms take from it:

    weights       which variables are prunable, their names and rates: Kernel, Prunable, Fraction, by_path, fresh_optimizer,
                  owning_layers, sublayers, value_of
    roles         which kernels are a model's outputs, asked by tracing it: Roles
    matrices      which axes of a kernel are its inputs and its outputs: axes, not_served
    patterns      whether zeros lie where hardware can use them: check
    summary       the kernels of a model one by one, with their patterns, and why one stays dense: kernels_of, table_of
    calls         how Keras calls a model, and when it has its weights: called
    compiling     what a model was compiled with, made again for another one: compile_arguments
    scope         a scope in which some variables have other values
    masked        what all wrappers share, and the raw kernels in order: Masked, masked_parts, settle, settle_all,
                  unwrapped, view_of
    own_step      models that bring their own step, and their optimizers: own_step
    layers        the wrappers: MaskedLayer, MaskedModel
    wrapping      put on and taken off, in one call: wrap, strip, gradient_masks
    learned       masks that are trained while the weights stay: Learned, wrap
    state         masks, values and the optimizer's state of a wrapped model, read and set
    tracing       compiled functions that are called many times: Traced
    moves         masks that change in the middle of a training: Moves
    gradients     what criteria that choose before training measure of a model: Probe
    probes        examples from which the batches for gradients are drawn: Probes
    health        masks that do harm, kernels that no signal passes, dead networks, exploded losses: Connections, Watch
    policies      which layers to prune for a purpose: PruneForLatencyOnXNNPack
    precision     mixed precision, and losses scaled for float16: loss_scaling
    distribution  one model on several devices or machines: Replicas, strategy_of, sums_no_gradients
"""
